// Package pki makes the certificates by which the parts of a cluster know each
// other: one authority a cluster, and a certificate a part.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// lifetime is longer than a cluster for tests is left running.
const lifetime = 365 * 24 * time.Hour

// An Authority signs certificates and writes them into its folder.
type Authority struct {
	Dir  string // holds NAME.crt and NAME.key of each, and ca.crt, ca.key
	cert *x509.Certificate
	key  crypto.Signer
}

// New makes an authority and writes its certificate and key into dir, which
// must exist.
func New(dir string) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	a := &Authority{Dir: dir, key: key}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "kubernetes"},
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	der, err := a.sign(template, template, key.Public())
	if err != nil {
		return nil, err
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		return nil, err
	}
	return a, a.write("ca", der, key)
}

// A Name is whom a certificate is for.
type Name struct {
	File   string   // the certificate's and the key's file, without .crt and .key
	User   string   // common name: to Kubernetes, the name of the user
	Groups []string // organisations: to Kubernetes, the user's groups
	Hosts  []string // names and addresses that a server of it is reached at
}

// Issue writes a certificate for name, good for servers and clients, and its
// key.
func (a *Authority) Issue(name Name) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: name.User, Organization: name.Groups},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, host := range name.Hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	der, err := a.sign(template, a.cert, key.Public())
	if err != nil {
		return fmt.Errorf("certificate for %s: %w", name.User, err)
	}
	return a.write(name.File, der, key)
}

// Key writes a key pair without a certificate, NAME.key and NAME.pub.
func (a *Authority) Key(name string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	return errors.Join(
		writePEM(a.path(name+".key"), "PRIVATE KEY", private, 0o600),
		writePEM(a.path(name+".pub"), "PUBLIC KEY", public, 0o644))
}

// sign makes template a certificate of its own serial number, valid from an
// hour ago, so that clocks that differ a little agree.
func (a *Authority) sign(template, parent *x509.Certificate, public crypto.PublicKey) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	template.NotBefore = time.Now().Add(-time.Hour)
	template.NotAfter = time.Now().Add(lifetime)
	return x509.CreateCertificate(rand.Reader, template, parent, public, a.key)
}

func (a *Authority) write(name string, cert []byte, key crypto.Signer) error {
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return errors.Join(
		writePEM(a.path(name+".crt"), "CERTIFICATE", cert, 0o644),
		writePEM(a.path(name+".key"), "PRIVATE KEY", private, 0o600))
}

func (a *Authority) path(file string) string { return filepath.Join(a.Dir, file) }

func writePEM(path, kind string, der []byte, mode os.FileMode) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), mode)
}
