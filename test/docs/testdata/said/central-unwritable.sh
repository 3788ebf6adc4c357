echo secret >password
mkdir -p /var/lib/registry && chmod 0555 /var/lib/registry
setpriv --bounding-set=-dac_override,-dac_read_search --inh-caps=-all -- \
	larder central --user admin --password-file password --plain-http --data-dir /var/lib/registry || true
