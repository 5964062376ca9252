"""The report: tables, figures and words, for people, programs and papers."""
