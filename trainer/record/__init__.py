"""What happened, on disk and for whoever comes late: the journal, its digest, the tree of branches."""
