"""What maintainers run on this repository; nothing here ships in the wheel."""
