package oci

import "strings"

// The media types Larder tells apart. Anything else passes through untouched.
const (
	MediaTypeManifest       = "application/vnd.oci.image.manifest.v1+json"
	MediaTypeIndex          = "application/vnd.oci.image.index.v1+json"
	MediaTypeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	MediaTypeDockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	// MediaTypeOctetStream is what every blob is served as.
	MediaTypeOctetStream = "application/octet-stream"
)

// IsManifestType reports whether a Content-Type is one of an image manifest or
// index: a client that gets a manifest under any other type fails the pull.
// Parameters ("; charset=utf-8") and case do not count. Docker's schema 1 is
// not among them: its digest is not that of its bytes, so it cannot be checked.
func IsManifestType(mediaType string) bool {
	switch essence(mediaType) {
	case MediaTypeManifest, MediaTypeDockerManifest, MediaTypeIndex, MediaTypeDockerList:
		return true
	}
	return false
}

// IsIndexType reports whether a Content-Type is that of an index (Docker's
// manifest list included), whose children are image manifests and not blobs.
func IsIndexType(mediaType string) bool {
	switch essence(mediaType) {
	case MediaTypeIndex, MediaTypeDockerList:
		return true
	}
	return false
}

// essence is a media type without its parameters (RFC 9110 section 8.3.1).
func essence(mediaType string) string {
	mediaType, _, _ = strings.Cut(mediaType, ";")
	return strings.ToLower(strings.TrimSpace(mediaType))
}
