package main

// Throw-away certificates: one authority per cluster, EC keys, good for a week, in the state folder only.

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	api "k8s.io/client-go/tools/clientcmd/api"
)

type authority struct {
	folder string
	cert   *x509.Certificate
	key    *ecdsa.PrivateKey
	caPEM  []byte
}

// issued is a certificate and its key, as PEM.
type issued struct{ cert, key []byte }

func newAuthority(folder string) (*authority, error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, err
	}
	a := &authority{folder: folder}
	ca := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "local-control-plane"},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	made, key, err := a.make(ca)
	if err != nil {
		return nil, err
	}
	a.key, a.caPEM = key, made.cert
	block, _ := pem.Decode(made.cert)
	if a.cert, err = x509.ParseCertificate(block.Bytes); err != nil {
		return nil, err
	}
	return a, os.WriteFile(a.file("ca.crt"), a.caPEM, 0o600)
}

func (a *authority) file(name string) string { return filepath.Join(a.folder, name) }

// make signs with the authority's key, or the new one's own while there is no authority yet.
func (a *authority) make(c *x509.Certificate) (issued, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return issued{}, nil, err
	}
	if c.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62)); err != nil {
		return issued{}, nil, err
	}
	// Clocks of the machine and of a container may differ a little.
	c.NotBefore = time.Now().Add(-time.Hour)
	c.NotAfter = time.Now().Add(7 * 24 * time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
	if err != nil {
		return issued{}, nil, err
	}
	raw, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return issued{}, nil, err
	}
	made := issued{
		cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		key:  pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: raw}),
	}
	return made, key, nil
}

// server writes NAME.crt and NAME.key for loopback and for the `kubernetes` Service.
func (a *authority) server(name string, serviceAddress net.IP) error {
	made, _, err := a.make(&x509.Certificate{
		Subject:     pkix.Name{CommonName: name},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:    []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), serviceAddress},
	})
	if err != nil {
		return err
	}
	return a.write(name, made)
}

func (a *authority) write(name string, made issued) error {
	if err := os.WriteFile(a.file(name+".crt"), made.cert, 0o600); err != nil {
		return err
	}
	return os.WriteFile(a.file(name+".key"), made.key, 0o600)
}

// user writes a kubeconfig that is whole in itself.
func (a *authority) user(file, server, name string, groups ...string) error {
	made, _, err := a.make(&x509.Certificate{
		Subject:     pkix.Name{CommonName: name, Organization: groups},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return fmt.Errorf("certificate of %s: %w", name, err)
	}
	const cluster = "local"
	config := api.Config{
		Clusters:       map[string]*api.Cluster{cluster: {Server: server, CertificateAuthorityData: a.caPEM}},
		AuthInfos:      map[string]*api.AuthInfo{name: {ClientCertificateData: made.cert, ClientKeyData: made.key}},
		Contexts:       map[string]*api.Context{cluster: {Cluster: cluster, AuthInfo: name}},
		CurrentContext: cluster,
	}
	return clientcmd.WriteToFile(config, file)
}
