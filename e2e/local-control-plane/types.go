package main

// `types`: the fields of the built-in kinds' Go types as a table: their names in JSON and their numbers in protobuf. The
// embedded server reads protobuf bodies and explains built-in kinds by it
// (fake-cloud/kube/src/wire/types.txt is this command's output).

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"reflect"
	"sort"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes/scheme"
)

// printTypes is its command.
const printTypes = "types"

// The group versions that the embedded server serves, and what else clients send.
var tabled = map[schema.GroupVersion]bool{
	{Group: "", Version: "v1"}:                             true,
	{Group: "admissionregistration.k8s.io", Version: "v1"}: true,
	{Group: "apps", Version: "v1"}:                         true,
	{Group: "authentication.k8s.io", Version: "v1"}:        true,
	{Group: "authorization.k8s.io", Version: "v1"}:         true,
	{Group: "autoscaling", Version: "v1"}:                  true,
	{Group: "autoscaling", Version: "v2"}:                  true,
	{Group: "batch", Version: "v1"}:                        true,
	{Group: "coordination.k8s.io", Version: "v1"}:          true,
	{Group: "discovery.k8s.io", Version: "v1"}:             true,
	{Group: "networking.k8s.io", Version: "v1"}:            true,
	{Group: "node.k8s.io", Version: "v1"}:                  true,
	{Group: "policy", Version: "v1"}:                       true,
	{Group: "rbac.authorization.k8s.io", Version: "v1"}:    true,
	{Group: "scheduling.k8s.io", Version: "v1"}:            true,
	{Group: "storage.k8s.io", Version: "v1"}:               true,
}

// Types that JSON shows in a way of their own.
var leaves = map[reflect.Type]string{
	reflect.TypeFor[meta.Time]():            "Time",
	reflect.TypeFor[meta.MicroTime]():       "MicroTime",
	reflect.TypeFor[meta.Duration]():        "Duration",
	reflect.TypeFor[meta.FieldsV1]():        "FieldsV1",
	reflect.TypeFor[resource.Quantity]():    "Quantity",
	reflect.TypeFor[intstr.IntOrString]():   "IntOrString",
	reflect.TypeFor[runtime.RawExtension](): "Raw",
}

func typesCommand() int {
	out := bufio.NewWriter(os.Stdout)
	writeTypes(out)
	if err := out.Flush(); err != nil {
		fmt.Fprintln(os.Stderr, "local-control-plane:", err)
		return 1
	}
	return 0
}

// A kind is a line `kind GROUP/VERSION KIND TYPE`, a type a line `type NAME` with a line for each of its fields below:
// `NAME NUMBER KIND`. A `?` behind the number: nothing where it is empty; a `*`: it may be left out, and is told when it
// is empty, too.
func writeTypes(out io.Writer) {
	todo := map[string]reflect.Type{}
	var kinds []string
	for kind, goType := range scheme.Scheme.AllKnownTypes() {
		if !tabled[kind.GroupVersion()] || strings.HasSuffix(kind.Kind, "List") && kind.Kind != "List" {
			continue
		}
		if strings.HasSuffix(kind.Kind, "Options") && kind.Kind != "DeleteOptions" || kind.Kind == "WatchEvent" {
			continue
		}
		kinds = append(kinds, fmt.Sprintf("kind %s %s %s", kind.GroupVersion(), kind.Kind, nameOf(goType)))
		todo[nameOf(goType)] = goType
	}
	sort.Strings(kinds)
	for _, kind := range kinds {
		fmt.Fprintln(out, kind)
	}
	done := map[string]string{}
	for len(todo) > 0 {
		for name, goType := range todo {
			delete(todo, name)
			done[name] = fieldsOf(goType, func(below reflect.Type) {
				if _, known := done[nameOf(below)]; !known && below != goType {
					todo[nameOf(below)] = below
				}
			})
		}
	}
	names := make([]string, 0, len(done))
	for name := range done {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		fmt.Fprintf(out, "type %s\n%s", name, done[name])
	}
}

func nameOf(goType reflect.Type) string {
	path := goType.PkgPath()
	path = strings.TrimPrefix(path, "k8s.io/api/")
	if rest, found := strings.CutPrefix(path, "k8s.io/apimachinery/pkg/apis/"); found {
		path = rest
	}
	return strings.ReplaceAll(path, "/", ".") + "." + goType.Name()
}

func fieldsOf(goType reflect.Type, found func(reflect.Type)) string {
	var text strings.Builder
	for i := range goType.NumField() {
		field := goType.Field(i)
		name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
		parts := strings.Split(field.Tag.Get("protobuf"), ",")
		if len(parts) < 2 {
			continue
		}
		mark := ""
		switch {
		case field.Type.Kind() == reflect.Pointer:
			mark = "*"
		case strings.Contains(options, "omitempty") && field.Type.Kind() != reflect.Struct:
			mark = "?"
		}
		if name == "" {
			// What is inlined in JSON is a message of its own in protobuf.
			name = "-"
		}
		fmt.Fprintf(&text, "%s %s%s %s\n", name, parts[1], mark, kindOf(field.Type, found))
	}
	return text.String()
}

func kindOf(goType reflect.Type, found func(reflect.Type)) string {
	if leaf, known := leaves[goType]; known {
		return leaf
	}
	switch goType.Kind() {
	case reflect.Pointer:
		return kindOf(goType.Elem(), found)
	case reflect.Slice:
		if goType.Elem().Kind() == reflect.Uint8 {
			return "bytes"
		}
		return "[]" + kindOf(goType.Elem(), found)
	case reflect.Map:
		below := goType.Elem()
		// A list in a map is a message with items.
		if below.Kind() == reflect.Slice && below.Elem().Kind() != reflect.Uint8 {
			return "map:items:" + kindOf(below.Elem(), found)
		}
		return "map:" + kindOf(below, found)
	case reflect.Struct:
		found(goType)
		return nameOf(goType)
	case reflect.Bool:
		return "bool"
	case reflect.String:
		return "string"
	case reflect.Float64:
		return "double"
	case reflect.Int32, reflect.Uint16, reflect.Int16, reflect.Uint32:
		return "int32"
	default:
		return "int64"
	}
}
