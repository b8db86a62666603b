package policy

import "net/netip"

// Reserved are the ranges of addresses that RFC 6890 and the registries that it
// founded give a special meaning, private ones of RFC 1918 and RFC 4193 included.
// Those for documentation are left out: they are used as public ones where they
// are used at all.
func Reserved() []netip.Prefix {
	var list []netip.Prefix
	for _, text := range []string{
		"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
		"192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/3",
		"::/8", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2002::/16", "fc00::/7", "fe80::/10", "ff00::/8",
	} {
		list = append(list, netip.MustParsePrefix(text))
	}
	return list
}
