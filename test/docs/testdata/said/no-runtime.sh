mkdir -p /etc/containerd
echo 'version = 2' >/etc/containerd/config.toml
node="--target containerd --containerd-version 1.7.27"
larder doctor $node || true
# A configuration in the old way, which containerd takes for one or the other.
cat >>/etc/containerd/config.toml <<'END'
[plugins."io.containerd.grpc.v1.cri".registry.mirrors."docker.io"]
endpoint = ["https://mirror.example"]
END
larder init $node --address loopback || true
larder init $node --address loopback --require || true
