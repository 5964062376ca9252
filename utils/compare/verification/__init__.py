"""`compare.py --verify`: plan, record, data and every number of a report, checked again."""
