"""The processes of a training: how they connect, agree, stop at a signal, and notice a hang."""
