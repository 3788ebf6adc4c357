echo secret >password
larder central --user admin --password-file password --data-dir /var/lib/registry || true
