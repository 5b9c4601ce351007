"""One module per CRM: its exports and ids become canonical records."""
