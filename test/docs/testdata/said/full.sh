mkdir -p /var/lib/larder && mount -t tmpfs -o size=2m tmpfs /var/lib/larder
mirror
larder pull docker.io/library/alpine:3.20
cat mirror.log
curl -sS http://127.0.0.1:8001/readyz
