package nodeconfig

import (
	"fmt"
	"maps"
	"slices"
)

// The tables in which the CRI plugin's image settings stand.
const (
	pluginV1 = "cri"                         // version 1
	pluginV2 = "io.containerd.grpc.v1.cri"   // version 2
	pluginV3 = "io.containerd.cri.v1.images" // version 3 and 4
)

// defaultRoots is what containerd 2.2 and newer take for an empty config_path
// when no mirrors are set.
const defaultRoots = "/etc/containerd/certs.d:/etc/docker/certs.d"

// registry is the table registry of the settings for images.
func (e *effective) registry() map[string]any {
	registry, _ := e.images["registry"].(map[string]any)
	return registry
}

// configPath is config_path as it is written; empty when it is not set.
func (e *effective) configPath() string {
	text, _ := e.registry()["config_path"].(string)
	return text
}

// conflicts names the tables that keep containerd's CRI plugin from loading once
// config_path is set (ValidateImageConfig; ValidatePluginConfig in 1.x).
func (e *effective) conflicts() []string {
	var names []string
	if mirrors, ok := e.registry()["mirrors"].(map[string]any); ok {
		for _, name := range slices.Sorted(maps.Keys(mirrors)) {
			names = append(names, fmt.Sprintf("registry.mirrors.%q", name))
		}
	}
	configs, _ := e.registry()["configs"].(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(configs)) {
		config, _ := configs[name].(map[string]any)
		if _, ok := config["tls"]; ok && e.by.old() {
			names = append(names, fmt.Sprintf("registry.configs.%q.tls", name))
		}
	}
	return names
}

// localPull says why containerd 2.1 and newer fetch images in the CRI plugin and
// not by the transfer service; empty when they use the service
// (CheckLocalImagePullConfigs).
func (e *effective) localPull() string {
	flag := func(key string, byDefault bool) bool {
		if v, ok := e.images[key].(bool); ok {
			return v
		}
		return byDefault
	}
	some := func(key string) bool {
		table, _ := e.registry()[key].(map[string]any)
		return len(table) > 0
	}
	downloads, ok := e.images["max_concurrent_downloads"].(int64)
	switch {
	case flag("use_local_image_pull", false):
		return "use_local_image_pull"
	case !flag("disable_snapshot_annotations", true):
		return "disable_snapshot_annotations = false"
	case flag("discard_unpacked_layers", false):
		return "discard_unpacked_layers = true"
	case some("mirrors"), some("configs"), some("auths"):
		return "registry.mirrors, configs or auths"
	case ok && downloads != 3:
		return "max_concurrent_downloads"
	case flag("image_pull_with_sync_fs", false):
		return "image_pull_with_sync_fs"
	}
	return ""
}

// socket is where this containerd answers.
func (e *effective) socket() string {
	plugins, _ := e.all["plugins"].(map[string]any)
	server, _ := plugins["io.containerd.server.v1.grpc"].(map[string]any)
	old, _ := e.all["grpc"].(map[string]any)
	for _, table := range []map[string]any{server, old} {
		if address, ok := table["address"].(string); ok && address != "" {
			return address
		}
	}
	return "/run/containerd/containerd.sock"
}

// nameV1 gives the plugin that version 1 calls cri its later name.
func nameV1(plugins map[string]any) map[string]any {
	table, ok := plugins[pluginV1]
	if !ok {
		return plugins
	}
	plugins = maps.Clone(plugins)
	delete(plugins, pluginV1)
	plugins[pluginV2] = table
	return plugins
}

// migrateImages copies the settings for images from where version 2 has them to
// where version 3 has them, replacing what is there, table by table
// (configMigration in plugins/cri/images).
func migrateImages(plugins map[string]any) {
	old, ok := plugins[pluginV2].(map[string]any)
	if !ok {
		return
	}
	images, _ := plugins[pluginV3].(map[string]any)
	if images == nil {
		images = map[string]any{}
	}
	maps.Copy(images, imagesV2(old))
	plugins[pluginV3] = images
}

// imagesV2 picks the settings for images out of the whole CRI plugin's.
func imagesV2(cri map[string]any) map[string]any {
	images := map[string]any{}
	for _, key := range []string{"registry", "max_concurrent_downloads", "image_pull_progress_timeout", "image_pull_with_sync_fs"} {
		if value, ok := cri[key]; ok {
			images[key] = value
		}
	}
	containerd, _ := cri["containerd"].(map[string]any)
	if _, ok := containerd["runtimes"]; !ok {
		return images // the migration stops here, too
	}
	for _, key := range []string{"snapshotter", "disable_snapshot_annotations", "discard_unpacked_layers"} {
		if value, ok := containerd[key]; ok {
			images[key] = value
		}
	}
	return images
}
