"""What people read: tables, plots, notebooks."""
