"""Results as one HTML file each: pictures inside, every text escaped, nothing fetched."""
