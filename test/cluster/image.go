package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/spf13/cobra"

	"github.com/kfs-project/kfs/test/cluster/image"
)

// This file holds the commands that make images and give them to a cluster.

func imageCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "image",
		Short: "Build images of static programs, and load them into a cluster",
	}
	cmd.AddCommand(imageBuildCommand(o), imageLoadCommand(o))
	return cmd
}

func imageBuildCommand(o *options) *cobra.Command {
	c := image.Config{Files: map[string][]byte{}}
	var tag, out, push string
	var load bool
	var files map[string]string
	cmd := &cobra.Command{
		Use:   "build -t REF [flags] PROGRAM...",
		Short: "Build an image of static programs: executables, or Go packages that are built first",
		Long: `Build an image of static programs: executables, or Go packages that are built
first. Each becomes /NAME in the image, whose only other content is an empty
/tmp and what --file and --symlink name. Without --output, --load or --push it is loaded.`,
		Example: `  cluster image build -t localhost/kfs:dev ./cmd/kfs
  cluster image build -t kfs:dev -o kfs.tar ./cmd/kfs ./cmd/kfs-launch
  cluster image build -t kfs:dev --push open ./cmd/kfs
  cluster image build -t ghcr.io/me/kfs:dev --push named ./cmd/kfs`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, programs []string) error {
			if tag == "" {
				return errors.New("image build: want a name for the image, by -t")
			}
			c.Programs = programs
			for target, source := range files {
				data, err := os.ReadFile(source)
				if err != nil {
					return err
				}
				c.Files[target] = data
			}
			img, err := image.Build(cmd.Context(), c)
			if err != nil {
				return err
			}
			if out != "" {
				if err := image.Write(out, tag, img); err != nil {
					return err
				}
			}
			if push != "" {
				ref, err := o.push(cmd.Context(), push, tag, img)
				if err != nil {
					return err
				}
				fmt.Fprintln(o.stdout, ref)
			}
			if load || out == "" && push == "" {
				up, err := o.open()
				if err != nil {
					return err
				}
				return up.Load(cmd.Context(), tag, img)
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&tag, "tag", "t", "", "name of the image, as in localhost/kfs:dev")
	flags.StringVarP(&out, "output", "o", "", "write an archive, as docker save does")
	flags.BoolVar(&load, "load", false, "load it into the cluster")
	flags.StringVar(&push, "push", "", "push it: to the cluster's registry, open, or private, for who logs in; or to the one named in the tag, named, with your docker login")
	flags.StringSliceVar(&c.Entrypoint, "entrypoint", nil, "what it runs (default: the first program)")
	flags.StringSliceVar(&c.Cmd, "cmd", nil, "arguments, where a pod gives none")
	flags.StringArrayVar(&c.Env, "env", nil, "NAME=VALUE")
	flags.StringVar(&c.User, "user", "", "user ID that it runs as (default: root)")
	flags.StringToStringVar(&c.Labels, "label", nil, "labels, as in org.opencontainers.image.version=v1")
	flags.StringToStringVar(&c.Links, "symlink", nil, "symbolic links, as in /bin/sh=/busybox")
	flags.StringToStringVar(&files, "file", nil, "further files, as in /PATH/IN/IMAGE=FILE")
	return cmd
}

// push pushes an image to one of the cluster's registries, or to that of the
// tag, and returns the name that it got.
func (o *options) push(ctx context.Context, to, tag string, img v1.Image) (string, error) {
	if to == "named" {
		return tag, image.Publish(ctx, tag, img)
	}
	if to != "open" && to != "private" {
		return "", fmt.Errorf("push to %q: want open, private or named", to)
	}
	up, err := o.open()
	if err != nil {
		return "", err
	}
	registry, user, password := up.Registry(), "", ""
	if to == "private" {
		registry, user, password = up.PrivateRegistry(), up.Spec.PullLogin.User, up.Spec.PullLogin.Password
	}
	ref := registry + "/" + tag
	return ref, image.Push(ctx, ref, img, user, password)
}

func imageLoadCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "load FILE...",
		Short: "Load archives of images, such as docker save writes, into a cluster",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, files []string) error {
			c, err := o.open()
			if err != nil {
				return err
			}
			for _, file := range files {
				if _, err := os.Stat(file); err != nil {
					return err
				}
				if err := c.LoadArchive(cmd.Context(), file); err != nil {
					return err
				}
			}
			return nil
		},
	}
}
