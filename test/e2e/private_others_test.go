package e2e

import (
	"context"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"testing"
)

// TestPrivateImagesOfOthers has podman and skopeo pull a private image that the
// mirror holds. They give a mirror no credentials: with some they get the image
// from the registry, without they get nothing.
func TestPrivateImagesOfOthers(t *testing.T) {
	for _, c := range containersImage() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			// A name without a port, which the path form can carry.
			name := fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254))
			up, img := startPrivateRegistry(t, name+":80", false)
			l := &leakTest{upstream: up, img: img, mirror: startMirror(t, name, shortProofs)}
			for _, dgst := range img.all() {
				kind := "blobs"
				if dgst == img.index || dgst == img.manifest {
					kind = "manifests"
				}
				if status := l.ask(t, "/v2/f/"+name+"/"+repo+"/"+kind+"/"+dgst, secret(holderSecret)); status != http.StatusOK {
					t.Fatalf("the holder gets %d for %s", status, dgst)
				}
			}
			fresh := func() (node, containersNode) {
				n := c.fresh(t, target{mirror: l.mirror.addr, upstream: name, repo: repo, tag: tag})
				var files containersNode
				switch n := n.(type) {
				case podmanNode:
					files = n.containersNode
				case skopeoNode:
					files = n.containersNode
				}
				config := strings.NewReplacer(fmt.Sprintf("prefix = %q", pathName), fmt.Sprintf("prefix = %q", name), "/f/"+pathName, "/f/"+name)
				before, err := os.ReadFile(files.registries)
				if err != nil {
					t.Fatal(err)
				}
				write(t, files.home, "registries.conf", config.Replace(string(before)))
				return n, files
			}
			pull := func(n node, files containersNode, more ...string) error {
				ctx, cancel := context.WithTimeout(t.Context(), pullPatience)
				defer cancel()
				ref := name + "/" + repo + ":" + tag
				args := append([]string{"pull", "--signature-policy", files.policy}, append(more, ref)...)
				program := "/usr/bin/podman"
				if _, ok := n.(skopeoNode); ok {
					program = "/usr/bin/skopeo"
					args = append([]string{"--policy", files.policy, "--registries-conf", files.registries, "copy"}, append(more, "docker://"+ref, "dir:"+files.home+"/image")...)
				}
				_, err := run(ctx, files.env, program, args...)
				return err
			}
			n, files := fresh()
			if err := pull(n, files); err == nil {
				t.Error("the image was pulled without credentials")
			}
			n, files = fresh()
			auth := base64.StdEncoding.EncodeToString([]byte(holder + ":" + holderSecret))
			file := write(t, files.home, "auth.json", fmt.Sprintf(`{"auths": {%q: {"auth": %q}}}`, name, auth))
			if err := pull(n, files, "--authfile", file); err != nil {
				t.Errorf("pull with credentials: %v", err)
			}
			if _, others := up.served(); len(others) == 0 {
				t.Error("the registry was not asked by the client itself")
			}
			if !strings.Contains(l.mirror.Output(), `"status":401`) {
				t.Error("the client did not ask the mirror")
			}
		})
	}
}
