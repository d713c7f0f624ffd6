"""The web side: the dock's HTTP API and pages, and the board of methods, in one FastAPI application."""
