"""The methods of the Trainer, by subject. Each class here is a base class of `Trainer`."""
