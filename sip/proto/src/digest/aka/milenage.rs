//! Milenage, the example algorithm set for AKA that nearly every SIM uses (TS 35.206).

use aes::Aes128;
use aes::cipher::{BlockCipherEncrypt, KeyInit};

type Block = [u8; 16];

/// A subscriber's key K with the operator's OPc.
#[derive(Clone)]
pub struct Milenage {
    cipher: Aes128,
    opc: Block,
}

/// f2 to f5 and f5*: what one RAND gives (TS 33.102 §6.3).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Keys {
    pub res: [u8; 8],
    pub ck: Block,
    pub ik: Block,
    /// Hides SQN on the way to the SIM.
    pub ak: [u8; 6],
    /// Hides SQN on the way back (f5*).
    pub ak_star: [u8; 6],
}

impl Milenage {
    pub fn new(k: &Block, opc: &Block) -> Milenage {
        Milenage { cipher: Aes128::new(k.into()), opc: *opc }
    }

    /// From OP, which an operator has one of (TS 35.206 §4.1).
    pub fn with_op(k: &Block, op: &Block) -> Milenage {
        let mut m = Milenage::new(k, &[0; 16]);
        m.opc = xor(m.encrypt(*op), op);
        m
    }

    pub fn opc(&self) -> &Block {
        &self.opc
    }

    /// MAC-A and MAC-S: f1 and f1*.
    pub fn f1(&self, rand: &Block, sqn: [u8; 6], amf: [u8; 2]) -> ([u8; 8], [u8; 8]) {
        let temp = self.temp(rand);
        let mut in1 = [0u8; 16];
        for half in in1.chunks_exact_mut(8) {
            half[..6].copy_from_slice(&sqn);
            half[6..].copy_from_slice(&amf);
        }
        // r1 = 64 bits, c1 = 0.
        let rotated = rotate(xor(in1, &self.opc), 8);
        let out = xor(self.encrypt(xor(temp, &rotated)), &self.opc);
        (first(&out), last(&out))
    }

    /// All that depends on RAND alone.
    pub fn f2345(&self, rand: &Block) -> Keys {
        let temp = xor(self.temp(rand), &self.opc);
        // (r, c) of OUT2 to OUT5; r in octets.
        let out = |r: usize, c: u8| {
            let mut block = rotate(temp, r);
            block[15] ^= c;
            xor(self.encrypt(block), &self.opc)
        };
        let (out2, out3, out4, out5) = (out(0, 1), out(4, 2), out(8, 4), out(12, 8));
        Keys { res: last(&out2), ck: out3, ik: out4, ak: first(&out2), ak_star: first(&out5) }
    }

    fn temp(&self, rand: &Block) -> Block {
        self.encrypt(xor(*rand, &self.opc))
    }

    fn encrypt(&self, mut block: Block) -> Block {
        self.cipher.encrypt_block((&mut block).into());
        block
    }
}

impl std::fmt::Debug for Milenage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Milenage(..)")
    }
}

pub(super) fn xor<const N: usize>(mut a: [u8; N], b: &[u8; N]) -> [u8; N] {
    for (a, b) in a.iter_mut().zip(b) {
        *a ^= b;
    }
    a
}

/// Cyclic, towards the most significant bit.
fn rotate(mut block: Block, octets: usize) -> Block {
    block.rotate_left(octets);
    block
}

fn first<const N: usize>(block: &Block) -> [u8; N] {
    std::array::from_fn(|i| block[i])
}

fn last<const N: usize>(block: &Block) -> [u8; N] {
    std::array::from_fn(|i| block[16 - N + i])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex<const N: usize>(text: &str) -> [u8; N] {
        std::array::from_fn(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap())
    }

    /// TS 35.207 / 35.208 test sets:
    /// K, RAND, SQN, AMF, OP, OPc, f1, f1*, f2, f5, f3, f4, f5*.
    const SETS: [[&str; 13]; 5] = [
        [
            "465b5ce8b199b49faa5f0a2ee238a6bc",
            "23553cbe9637a89d218ae64dae47bf35",
            "ff9bb4d0b607",
            "b9b9",
            "cdc202d5123e20f62b6d676ac72cb318",
            "cd63cb71954a9f4e48a5994e37a02baf",
            "4a9ffac354dfafb3",
            "01cfaf9ec4e871e9",
            "a54211d5e3ba50bf",
            "aa689c648370",
            "b40ba9a3c58b2a05bbf0d987b21bf8cb",
            "f769bcd751044604127672711c6d3441",
            "451e8beca43b",
        ],
        [
            "0396eb317b6d1c36f19c1c84cd6ffd16",
            "c00d603103dcee52c4478119494202e8",
            "fd8eef40df7d",
            "af17",
            "ff53bade17df5d4e793073ce9d7579fa",
            "53c15671c60a4b731c55b4a441c0bde2",
            "5df5b31807e258b0",
            "a8c016e51ef4a343",
            "d3a628ed988620f0",
            "c47783995f72",
            "58c433ff7a7082acd424220f2b67c556",
            "21a8c1f929702adb3e738488b9f5c5da",
            "30f1197061c1",
        ],
        [
            "fec86ba6eb707ed08905757b1bb44b8f",
            "9f7c8d021accf4db213ccff0c7f71a6a",
            "9d0277595ffc",
            "725c",
            "dbc59adcb6f9a0ef735477b7fadf8374",
            "1006020f0a478bf6b699f15c062e42b3",
            "9cabc3e99baf7281",
            "95814ba2b3044324",
            "8011c48c0c214ed2",
            "33484dc2136b",
            "5dbdbb2954e8f3cde665b046179a5098",
            "59a92d3b476a0443487055cf88b2307b",
            "deacdd848cc6",
        ],
        [
            "9e5944aea94b81165c82fbf9f32db751",
            "ce83dbc54ac0274a157c17f80d017bd6",
            "0b604a81eca8",
            "9e09",
            "223014c5806694c007ca1eeef57f004f",
            "a64a507ae1a2a98bb88eb4210135dc87",
            "74a58220cba84c49",
            "ac2cc74a96871837",
            "f365cd683cd92e96",
            "f0b9c08ad02e",
            "e203edb3971574f5a94b0d61b816345d",
            "0c4524adeac041c4dd830d20854fc46b",
            "6085a86c6f63",
        ],
        [
            "4ab1deb05ca6ceb051fc98e77d026a84",
            "74b0cd6031a1c8339b2b6ce2b8c4a186",
            "e880a1b580b6",
            "9f07",
            "2d16c5cd1fdf6b22383584e3bef2a8d8",
            "dcf07cbd51855290b92a07a9891e523e",
            "49e785dd12626ef2",
            "9e85790336bb3fa2",
            "5860fc1bce351e7e",
            "31e11a609118",
            "7657766b373d1c2138f307e3de9242f9",
            "1c42e960d89b8fa99f2744e0708ccb53",
            "fe2555e54aa9",
        ],
    ];

    #[test]
    fn published_test_sets_come_out() {
        for [k, rand, sqn, amf, op, opc, f1, f1_star, f2, f5, f3, f4, f5_star] in SETS {
            let m = Milenage::with_op(&hex(k), &hex(op));
            assert_eq!(m.opc(), &hex::<16>(opc));
            assert_eq!(m.f1(&hex(rand), hex(sqn), hex(amf)), (hex(f1), hex(f1_star)));
            let keys = m.f2345(&hex(rand));
            assert_eq!((keys.res, keys.ak), (hex(f2), hex(f5)));
            assert_eq!((keys.ck, keys.ik, keys.ak_star), (hex(f3), hex(f4), hex(f5_star)));
        }
    }
}
