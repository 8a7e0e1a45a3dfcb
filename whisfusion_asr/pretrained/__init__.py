"""Public weights and archives: fetched with resume and checksums, and brought into our modules."""
