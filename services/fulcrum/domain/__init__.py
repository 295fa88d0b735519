"""The words of Fulcrum as frozen values; imports the standard library and numpy only."""
