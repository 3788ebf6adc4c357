mirror
larder mirror --data-dir /var/lib/other || true
