package main

// A cluster: etcd and the collectors in this process, the other components as children, in the order of their needs.

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	admin        = "admin"
	lookAgain    = 50 * time.Millisecond
	longestBoot  = 2 * time.Minute
	etcdBoot     = 30 * time.Second
	etcdTick     = 20 // milliseconds; the default of 100 adds half a second to every boot
	etcdElection = 10 * etcdTick
)

type cluster struct {
	*options
	server      string
	etcdAddress string
	etcd        *embed.Etcd
	children    []*child
	ended       chan string
	stop        context.CancelFunc
}

type child struct {
	process *os.Process
	gone    chan struct{}
}

func newCluster(o *options) (*cluster, error) {
	c := &cluster{options: o, ended: make(chan string, 4)}
	if o.port == 0 {
		free, err := freePort()
		if err != nil {
			return nil, err
		}
		o.port = free
	}
	c.server = fmt.Sprintf("https://127.0.0.1:%d", o.port)
	return c, c.writeIdentities()
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// writeIdentities writes all certificates and a kubeconfig for each user.
func (c *cluster) writeIdentities() error {
	a, err := newAuthority(c.in("certificates"))
	if err != nil {
		return err
	}
	first, _, err := net.ParseCIDR(serviceRange)
	if err != nil {
		return err
	}
	first = first.To4()
	first[3]++ // the `kubernetes` Service has the first address
	if err := a.server("apiserver", first); err != nil {
		return err
	}
	// Tokens are signed with a key; its certificate is not used.
	if err := a.server("tokens", first); err != nil {
		return err
	}
	const masters = "system:masters"
	users := []struct {
		name   string
		groups []string
	}{
		{admin, []string{masters}},
		{kwokController, []string{masters}},
		{kubeScheduler, nil},
		// One user for all its controllers needs the sum of their rights.
		{controllerManager, []string{masters}},
	}
	for _, u := range users {
		name := u.name
		if name == kubeScheduler || name == controllerManager {
			name = "system:" + name
		}
		if err := a.user(c.kubeconfig(u.name), c.server, name, u.groups...); err != nil {
			return err
		}
	}
	return nil
}

func (c *cluster) start(ctx context.Context) error {
	if err := c.startEtcd(); err != nil {
		return fmt.Errorf("etcd: %w", err)
	}
	if err := c.startChild(apiServer, c.apiServerFlags()); err != nil {
		return err
	}
	config, err := clientcmd.BuildConfigFromFlags("", c.kubeconfig(admin))
	if err != nil {
		return err
	}
	config.QPS = -1 // no limit
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	ready := func() error { return client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error() }
	if err := c.wait(ctx, "kube-apiserver", ready); err != nil {
		return err
	}
	if c.apiOnly {
		// Its namespaces and roles come some moments after it says that it is ready.
		return c.wait(ctx, "namespace default", func() error {
			_, err := client.CoreV1().Namespaces().Get(ctx, "default", meta.GetOptions{})
			return err
		})
	}
	if err := c.startOthers(config, client); err != nil {
		return err
	}
	// Before its ServiceAccount is there, a namespace takes no pods.
	account := func() error {
		_, err := client.CoreV1().ServiceAccounts("default").Get(ctx, "default", meta.GetOptions{})
		return err
	}
	return c.wait(ctx, "ServiceAccount default/default", account)
}

func (c *cluster) startOthers(config *rest.Config, client kubernetes.Interface) error {
	if err := c.startChild(controllerManager, c.controllerManagerFlags()); err != nil {
		return err
	}
	flags, err := c.schedulerFlags()
	if err != nil {
		return err
	}
	if err := c.startChild(kubeScheduler, flags); err != nil {
		return err
	}
	if flags, err = c.kwokFlags(); err != nil {
		return err
	}
	if err := c.startChild(kwokController, flags); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	c.stop = cancel
	return startCollectors(ctx, config, client, c.in("logs", "collectors.log"))
}

// startEtcd listens on sockets in the state folder (no port, no certificate) and does not wait for the disk: after a
// crash nobody wants the data.
func (c *cluster) startEtcd() error {
	config := embed.NewConfig()
	config.Name = "local"
	config.Dir = c.in("etcd")
	config.UnsafeNoFsync = true
	config.TickMs, config.ElectionMs = etcdTick, etcdElection
	config.LogLevel = "warn"
	config.LogOutputs = []string{c.in("logs", "etcd.log")}
	clients := url.URL{Scheme: "unix", Path: c.in("etcd.clients")}
	config.ListenClientUrls = []url.URL{clients}
	config.ListenPeerUrls = []url.URL{{Scheme: "unix", Path: c.in("etcd.peers")}}
	// What is advertised must look like host and port; nobody dials it.
	advertised := []url.URL{{Scheme: "http", Host: "127.0.0.1:2380"}}
	config.AdvertiseClientUrls, config.AdvertisePeerUrls = advertised, advertised
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	c.etcdAddress = clients.String()
	started, err := embed.StartEtcd(config)
	if err != nil {
		return err
	}
	c.etcd = started
	select {
	case <-started.Server.ReadyNotify():
		return nil
	case err := <-started.Err():
		return err
	case <-time.After(etcdBoot):
		return fmt.Errorf("not ready within %s", etcdBoot)
	}
}

func (c *cluster) startChild(name string, flags []string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	log, err := os.Create(c.in("logs", name+".log"))
	if err != nil {
		return err
	}
	defer log.Close()
	command := exec.Command(self, append([]string{name}, flags...)...)
	command.Stdout, command.Stderr = log, log
	// Without a folder of its own KWOK would read the user's ~/.kwok.
	command.Env = append(os.Environ(), "KWOK_WORKDIR="+c.in("kwok"))
	command.SysProcAttr = ofChild()
	if err := command.Start(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	started := &child{process: command.Process, gone: make(chan struct{})}
	c.children = append(c.children, started)
	go func() {
		// How it ended stands in its log.
		_ = command.Wait()
		close(started.gone)
		c.ended <- name
	}()
	return nil
}

// wait tries until it works, a component ends or time is up.
func (c *cluster) wait(ctx context.Context, what string, try func() error) error {
	deadline := time.After(longestBoot)
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case name := <-c.ended:
			return fmt.Errorf("%s ended while %s was waited for", name, what)
		case <-deadline:
			return errors.Join(fmt.Errorf("%s is not there after %s", what, longestBoot), err)
		case <-time.After(lookAgain):
		}
	}
}

// end ends everything at once: what is in the state folder is not used again, so nothing has to be put in order.
func (c *cluster) end() {
	if c.stop != nil {
		c.stop()
	}
	for _, child := range c.children {
		// One that has ended already is what we want.
		_ = child.process.Kill()
	}
	for _, child := range c.children {
		<-child.gone
	}
	if c.etcd != nil {
		c.etcd.Close()
	}
}
