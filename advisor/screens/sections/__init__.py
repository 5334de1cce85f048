"""Parts of pages: each draws one thing that the package computed."""
