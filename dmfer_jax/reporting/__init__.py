"""What a run leaves behind for people: logs, report.json, figures."""
