package engine

// Labels is a Lookup in labels that are all there are.
func Labels(labels map[string]string) Lookup {
	return func(key string) (string, Truth) {
		v, ok := labels[key]
		return v, TruthOf(ok)
	}
}
