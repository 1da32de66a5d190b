// Package accel turns what steps ask of devices into what Kubernetes and this
// machine know. It is the one package that the backends share.
//
//	Check      what no hardware of the table can give
//	Place      a pipeline whose steps say in words of Kubernetes what they ask
//	Schedule   the same for one step: limits, affinity, tolerations, /dev/shm
//	Warnings   what is probably not meant
//	Models     the table of hardware
//	Profile    which labels the nodes of a cluster have
//
// A cluster is asked for a device by a limit on an extended resource
// (nvidia.com/gpu: 2), which says neither its model nor its memory; these are
// labels of nodes, and whose labels there are differs from cluster to cluster.
// A target that has no cluster to look at is told by a Profile.
package accel

import (
	"fmt"
	"slices"
	"strings"

	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/internal/spell"
)

// A Profile says whose labels the nodes of a cluster have, and so which
// vendor's GPUs are meant where a step names none. The zero value is the
// labels that each vendor's own software sets, and no vendor.
type Profile string

// The profiles. Those of NVIDIA differ in the labels of its GPUs; all other
// hardware is labelled in one way each, whatever the profile.
const (
	GKE          Profile = "gke"           // Google's; NVIDIA
	EKSKarpenter Profile = "eks-karpenter" // of Karpenter on AWS; NVIDIA
	GFD          Profile = "gfd"           // of NVIDIA's GPU Feature Discovery, as by default
	AMDLabeller  Profile = "amd-labeller"  // of AMD's node labeller
)

var profiles = []Profile{GKE, EKSKarpenter, GFD, AMDLabeller}

// Profiles returns the names of the profiles.
func Profiles() []string {
	var names []string
	for _, p := range profiles {
		names = append(names, string(p))
	}
	return names
}

// ParseProfile returns the profile of the name; "" is the zero value.
func ParseProfile(name string) (Profile, error) {
	switch p := Profile(name); {
	case name == "" || slices.Contains(profiles, p):
		return p, nil
	case name == "dra":
		return "", fmt.Errorf("no profile %q: %s; want one of %s", name, noClaims, strings.Join(Profiles(), ", "))
	}
	if hint := spell.DidYouMean(name, Profiles()); hint != "" {
		return "", fmt.Errorf("no profile %q: %s", name, hint)
	}
	return "", fmt.Errorf("no profile %q: want one of %s", name, strings.Join(Profiles(), ", "))
}

// vendor is the family of GPUs that the profile decides on, or nil.
func (p Profile) vendor() *family {
	switch p {
	case GKE, EKSKarpenter, GFD:
		return familyNamed("nvidia")
	case AMDLabeller:
		return familyNamed("amd")
	}
	return nil
}

// Place returns the pipeline with its accelerators as limits, affinity,
// tolerations and volumes of the steps; p itself if it has none. The error is
// a dag.Errors of what the nodes of a cluster cannot be asked for.
func Place(p *dag.Pipeline, profile Profile) (*dag.Pipeline, error) {
	if !slices.ContainsFunc(p.Steps, func(s *dag.Step) bool { return s.Accelerator != nil }) {
		return p, nil
	}
	placed := *p
	placed.Steps = slices.Clone(p.Steps)
	var faults dag.Errors
	for i, s := range p.Steps {
		if s.Accelerator == nil {
			continue
		}
		x, err := Schedule(s, profile)
		if err != nil {
			faults = append(faults, dag.Faults(err)...)
			continue
		}
		placed.Steps[i] = x.apply(s)
	}
	return &placed, faults.Err()
}
