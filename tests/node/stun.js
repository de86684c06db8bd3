// A STUN client of another make: one Binding request, from LOCAL_PORT to PORT of 127.0.0.1; says `mapped ADDRESS:PORT`.
// node stun.js PORT LOCAL_PORT
const dgram = require('dgram');
const stun = require('stun');

const [port, local] = process.argv.slice(2).map(Number);
const socket = dgram.createSocket('udp4');
socket.bind(local, '127.0.0.1', () => {
  stun.request(`127.0.0.1:${port}`, { socket }, (error, answer) => {
    if (error) {
      console.log(`failed ${error.message}`);
    } else {
      const { address, port: mapped } = answer.getXorAddress();
      console.log(`mapped ${address}:${mapped}`);
    }
    socket.close();
  });
});
