"""The processes of a run on several ranks, and the one that hosts them."""
