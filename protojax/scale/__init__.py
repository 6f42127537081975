"""Scale: data, devices, disk and time. Knows no formula."""
