package e2e

// config1 is the configuration of containerd 1.6; HOME stands for its
// directory. Nothing is shared with a containerd of the machine.
const config1 = `version = 2
root = "HOME/root"
state = "HOME/state"
[grpc]
  address = "HOME/c.sock"
[debug]
  level = "debug"
[plugins."io.containerd.internal.v1.opt"]
  path = "HOME/opt"
[plugins."io.containerd.grpc.v1.cri".cni]
  conf_dir = "HOME/cni"
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "native"
[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = "HOME/certs.d"
`

// config2 is that of containerd 2.x. LOCAL, FETCH_CRI, FETCH_TRANSFER and ARCH
// are filled in, too.
const config2 = `version = 3
root = "HOME/root"
state = "HOME/state"
[grpc]
  address = "HOME/c.sock"
[debug]
  level = "debug"
[plugins."io.containerd.internal.v1.opt"]
  path = "HOME/opt"
[plugins."io.containerd.nri.v1.nri"]
  disable = true
[plugins."io.containerd.cri.v1.runtime".cni]
  conf_dir = "HOME/cni"
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "native"
  use_local_image_pull = LOCAL
  FETCH_CRI
[plugins."io.containerd.cri.v1.images".registry]
  config_path = "HOME/certs.d"
[plugins."io.containerd.transfer.v1.local"]
  FETCH_TRANSFER
[[plugins."io.containerd.transfer.v1.local".unpack_config]]
  platform = "linux/ARCH"
  snapshotter = "native"
  differ = "walking"
`
