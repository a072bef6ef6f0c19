"""Forms in which stored records leave: one file a form."""
