package main

// Kubernetes' own garbage collectors, run here because kube-controller-manager has no flags for their periods: it
// learns of new kinds every 30 s and leaves pods of a node that is gone alone for up to a minute, which a test would
// have to wait for.

import (
	"context"
	"os"
	"time"

	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/controller-manager/pkg/informerfactory"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/controller/garbagecollector"
	"k8s.io/kubernetes/pkg/controller/podgc"
)

const (
	newKindsEvery   = time.Second
	orphansEvery    = 500 * time.Millisecond
	orphanedFor     = time.Second
	collectorsAtOne = 20
)

func startCollectors(ctx context.Context, config *rest.Config, client kubernetes.Interface, logFile string) error {
	log, err := os.Create(logFile)
	if err != nil {
		return err
	}
	klog.LogToStderr(false)
	klog.SetOutput(log)
	objects, err := metadata.NewForConfig(config)
	if err != nil {
		return err
	}
	typed := informers.NewSharedInformerFactory(client, 0)
	both := informerfactory.NewInformerFactory(typed, metadatainformer.NewSharedInformerFactory(objects, 0))
	kinds := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(client.Discovery()))
	started := make(chan struct{})
	owners, err := garbagecollector.NewGarbageCollector(
		ctx, client, objects, kinds, garbagecollector.DefaultIgnoredResources(), both, started)
	if err != nil {
		return err
	}
	pods := podgc.NewPodGCInternal(
		ctx, client, typed.Core().V1().Pods(), typed.Core().V1().Nodes(), 0, orphansEvery, orphanedFor)
	both.Start(ctx.Done())
	close(started)
	go owners.Run(ctx, collectorsAtOne, 30*time.Second)
	go owners.Sync(ctx, client.Discovery(), newKindsEvery)
	go pods.Run(ctx)
	return nil
}
