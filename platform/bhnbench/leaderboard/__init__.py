"""What a sweep found: methods ranked per task, as tables and as figures."""
