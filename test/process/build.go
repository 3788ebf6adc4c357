package process

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Build builds larder into dir, and returns its path. The caller is a package right
// below test/, whose directory it works in.
func Build(dir string) (string, error) {
	file := filepath.Join(dir, "larder")
	cmd := exec.Command("go", "build", "-buildvcs=false", "-trimpath", "-o", file, "./cmd/larder")
	cmd.Dir, cmd.Env = "../..", append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build larder: %w\n%s", err, out)
	}
	return file, nil
}
