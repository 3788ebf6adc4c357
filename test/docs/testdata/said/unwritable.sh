mkdir -p /var/lib/larder && chmod 0555 /var/lib/larder
setpriv --bounding-set=-dac_override,-dac_read_search --inh-caps=-all -- \
	larder mirror --data-dir /var/lib/larder >mirror.log 2>&1 &
answers http://127.0.0.1:8000/healthz
until_said 'passes through'
larder pull docker.io/library/alpine:3.20
cat mirror.log
curl -sS http://127.0.0.1:8001/readyz
