"""When: requests are served here, and the one loop that writes owned kernel state runs here."""
