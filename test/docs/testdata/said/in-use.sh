mirror
echo 'registry_proxies: {lock_wait: 0s}' >larder.yaml
larder mirror --config larder.yaml --data-dir /var/lib/larder --listen 127.0.0.1:8010 --admin-listen '' || true
