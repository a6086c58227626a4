package export

import "net"

// Local says whether host, a name or an address, is this host: what is sent there goes over no network.
func Local(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
