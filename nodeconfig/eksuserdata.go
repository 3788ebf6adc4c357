package nodeconfig

import "strings"

// EKSUserData is the user data with which an AL2023 node of EKS uses the mirror
// from its first pull on: as a NodeConfig with the script that goes with it, for
// a launch template, and the same within an EC2NodeClass, for Karpenter.
//
// The script writes hosts.toml before nodeadm starts containerd. The NodeConfig
// makes config_path one directory: nodeadm's own is a list, which the transfer
// service of containerd 2.1 and newer does not understand. nodeadm merges both
// with what EKS and Karpenter add.
func EKSUserData(cfg Config) (nodeConfig, nodeClass string) {
	const boundary = "larder"
	var b strings.Builder
	b.WriteString("MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"" + boundary + "\"\n\n")
	b.WriteString("--" + boundary + "\nContent-Type: application/node.eks.aws\n\n")
	b.WriteString(`apiVersion: node.eks.aws/v1alpha1
kind: NodeConfig
spec:
  containerd:
    config: |
      [plugins."io.containerd.cri.v1.images".registry]
      config_path = "/etc/containerd/certs.d"
`)
	b.WriteString("\n--" + boundary + "\nContent-Type: text/x-shellscript; charset=\"us-ascii\"\n\n")
	b.WriteString("#!/bin/sh\nset -eu\ndir=/etc/containerd/certs.d/" + defaultDir + "\nmkdir -p \"$dir\"\n")
	b.WriteString("cat > \"$dir/.hosts.toml.new\" <<'LARDER'\n")
	b.Write(hostsFile(cfg, hostsOptions{}, ""))
	b.WriteString("LARDER\nmv \"$dir/.hosts.toml.new\" \"$dir/hosts.toml\"\n")
	b.WriteString("\n--" + boundary + "--\n")
	nodeConfig = b.String()

	b.Reset()
	b.WriteString(`# The part of an EC2NodeClass that makes its nodes use the mirror.
apiVersion: karpenter.k8s.aws/v1
kind: EC2NodeClass
metadata:
  name: default
spec:
  amiSelectorTerms:
    - alias: al2023@latest
  userData: |
`)
	for line := range strings.Lines(nodeConfig) {
		if strings.TrimSpace(line) != "" {
			b.WriteString("    ")
		}
		b.WriteString(line)
	}
	return nodeConfig, b.String()
}
