// Package controllers stands in for the module of that name, of which Cilium uses
// this one constant.
package controllers

// DerivedServiceAnnotation names the Service that was derived from a ServiceImport.
const DerivedServiceAnnotation = "multicluster.kubernetes.io/derived-service"
