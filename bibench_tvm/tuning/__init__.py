"""The search for better schedules: what is tried, measured on boards, and kept."""
