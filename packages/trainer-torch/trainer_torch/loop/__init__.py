"""The training loop: epochs, update steps, and what callbacks and signals ask for between them."""
