"""What training needs beside the loop (ESPnet owns it): parameter groups, Muon, schedules, EMA, files."""
