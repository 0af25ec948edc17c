"""A model as a folder that others can open without stepwise."""
