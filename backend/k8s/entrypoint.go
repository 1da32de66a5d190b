package k8s

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kfs-project/kfs/engine"
)

// This file looks up what an image runs, for steps that say no command and
// whose command the launcher is to start.

// An entrypoint is what an image runs, written so that the kubelet expands
// nothing of it.
type entrypoint struct {
	Entrypoint, Cmd []any
}

// entrypoint returns what the image of an attempt runs, if that is needed.
func (r *Run) entrypoint(ctx context.Context, a *engine.Attempt) (*entrypoint, error) {
	if command, _ := a.Container.Get("command").([]any); !launched(a) || len(command) > 0 {
		return nil, nil
	}
	image, _ := a.Container.Get("image").(string)
	image = r.pods.image(image)
	r.at.Lock()
	entry, known := r.entries[image]
	r.at.Unlock()
	if known {
		return entry, nil
	}
	entry, err := lookUp(ctx, image, r.keychain(ctx, a))
	if err != nil && registryAway(err) && ctx.Err() == nil {
		return nil, fmt.Errorf("%w: %w", errNotYet, err)
	}
	if err != nil {
		return nil, fmt.Errorf("it says no command, and what image %q runs cannot be looked up: %w; add command = [...]", image, err)
	}
	if len(entry.Entrypoint) == 0 && len(entry.Cmd) == 0 {
		return nil, fmt.Errorf("neither it nor its image %q says what to run: add command = [...]", image)
	}
	r.at.Lock()
	r.entries[image] = entry
	r.at.Unlock()
	return entry, nil
}

// errNotYet is wrapped by an error of a registry that may answer later.
var errNotYet = errors.New("the registry cannot say what the image runs")

// registryAway reports whether an error says nothing about the image.
func registryAway(err error) bool {
	var answer *transport.Error
	var dns *net.DNSError
	var network net.Error
	switch {
	case errors.As(err, &answer):
		return answer.StatusCode == http.StatusTooManyRequests || answer.StatusCode >= 500
	case errors.As(err, &dns):
		return !dns.IsNotFound
	}
	return errors.As(err, &network) || errors.Is(err, context.DeadlineExceeded)
}

// lookUpFor is how long a registry may take to say what an image runs.
const lookUpFor = 30 * time.Second

func lookUp(ctx context.Context, image string, keys authn.Keychain) (*entrypoint, error) {
	ref, err := name.ParseReference(image)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, lookUpFor)
	defer cancel()
	var img v1.Image
	for _, arch := range []string{"amd64", "arm64"} { // what it runs is the same for all
		if img, err = remote.Image(ref, remote.WithContext(ctx), remote.WithAuthFromKeychain(keys), remote.WithPlatform(v1.Platform{OS: "linux", Architecture: arch})); err == nil || !strings.Contains(err.Error(), "no child with platform") {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	return &entrypoint{Entrypoint: literal(config.Config.Entrypoint), Cmd: literal(config.Config.Cmd)}, nil
}

// pullKeys are the logins of pull secrets, by registry, or by registry and the
// beginning of a path in it.
type pullKeys map[string]authn.AuthConfig

// Resolve implements authn.Keychain. As for the kubelet, the key that says most
// comes first, and * stands for a part of the registry's name.
func (k pullKeys) Resolve(r authn.Resource) (authn.Authenticator, error) {
	hosts := slices.SortedFunc(maps.Keys(k), func(a, b string) int {
		return cmp.Or(cmp.Compare(strings.Count(b, "/"), strings.Count(a, "/")), cmp.Compare(len(b), len(a)), cmp.Compare(a, b))
	})
	for _, host := range hosts {
		bare := strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(host, "https://"), "http://"), "/")
		bare = strings.TrimSuffix(strings.TrimSuffix(bare, "/v1"), "/v2")
		registry, prefix, _ := strings.Cut(bare, "/")
		if registry == "docker.io" || registry == "registry-1.docker.io" {
			registry = name.DefaultRegistry
		}
		_, repository, _ := strings.Cut(r.String(), "/")
		if ok, _ := path.Match(registry, r.RegistryStr()); ok && (prefix == "" || strings.HasPrefix(repository+"/", prefix+"/")) {
			return authn.FromConfig(k[host]), nil
		}
	}
	return authn.Anonymous, nil
}

// keychain returns the logins of the pull secrets that the attempt's pod will
// have, as far as kfs may read them, and then those of this machine.
func (r *Run) keychain(ctx context.Context, a *engine.Attempt) authn.Keychain {
	var secrets []string
	for _, ref := range r.pods.conf.ImagePullSecrets {
		if s, ok := ref.Get("name").(string); ok {
			secrets = append(secrets, s)
		}
	}
	account := firstText(a.Pod.ServiceAccount, r.pods.conf.ServiceAccount, r.pods.opts.ServiceAccount, "default")
	if err := r.cluster.do(ctx, func(ctx context.Context) error {
		sa, err := r.cluster.accounts.Get(ctx, account, metav1.GetOptions{})
		if err == nil {
			for _, ref := range sa.ImagePullSecrets {
				secrets = append(secrets, ref.Name)
			}
		}
		return err
	}); err != nil && !apierrors.IsForbidden(err) && !apierrors.IsNotFound(err) {
		r.notice("cannot read service account %s: %v", account, err)
	}
	keys := pullKeys{}
	for _, secret := range secrets {
		var s *corev1.Secret
		if err := r.cluster.do(ctx, func(ctx context.Context) (err error) {
			s, err = r.cluster.secrets.Get(ctx, secret, metav1.GetOptions{})
			return err
		}); err != nil {
			if !apierrors.IsForbidden(err) && !apierrors.IsNotFound(err) {
				r.notice("cannot read pull secret %s: %v", secret, err)
			}
			continue
		}
		var config struct {
			Auths map[string]authn.AuthConfig `json:"auths"`
		}
		data := s.Data[".dockerconfigjson"]
		if data == nil {
			if json.Unmarshal(s.Data[".dockercfg"], &config.Auths) != nil {
				continue
			}
		} else if json.Unmarshal(data, &config) != nil {
			continue // its text is a secret, and so is what is wrong with it
		}
		maps.Copy(keys, config.Auths)
	}
	return authn.NewMultiKeychain(keys, authn.DefaultKeychain)
}
