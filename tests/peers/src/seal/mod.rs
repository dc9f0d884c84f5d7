//! Microsoft SEAL 4.0. Operations work in place, with the global memory pool, and
//! keys are kept expanded: the fastest way that its interface has.

mod sys;

use std::ffi::{c_int, c_long};
use std::ptr::null_mut;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::chains::Chain;
use crate::clock::measure;
use crate::peer::{Operation, Peer};
use sys::Object;

/// CKKS, in `scheme_type`.
const CKKS: u8 = 2;
/// 128 bits, in `sec_level_type`.
const TC128: c_int = 128;

fn check(status: c_long) -> Result<()> {
    ensure!(status == 0, "SEAL returned {status:#x}");
    Ok(())
}

/// Calls a function of SEAL's and checks what it returns.
macro_rules! seal {
    ($name:ident($($arg:expr),* $(,)?)) => {
        // SAFETY: every object comes from an `Owned` of the type that the function
        // takes, or is null where SEAL takes null; other pointers are to arrays
        // of the length that is given, or that the function states.
        check(unsafe { sys::$name($($arg),*) })
    };
}

/// An object of SEAL's, destroyed when dropped.
struct Owned {
    object: Object,
    destroy: unsafe extern "C" fn(Object) -> c_long,
}

impl Owned {
    /// Of what `create` writes to its argument.
    fn new(
        destroy: unsafe extern "C" fn(Object) -> c_long,
        create: impl FnOnce(*mut Object) -> Result<()>,
    ) -> Result<Self> {
        let mut object = null_mut();
        create(&raw mut object)?;
        ensure!(!object.is_null(), "SEAL returned no object");
        Ok(Self { object, destroy })
    }

    fn ciphertext() -> Result<Self> {
        Self::new(sys::Ciphertext_Destroy, |out| {
            seal!(Ciphertext_Create1(null_mut(), out))
        })
    }

    fn copy_of(ciphertext: &Self) -> Result<Self> {
        Self::new(sys::Ciphertext_Destroy, |out| {
            seal!(Ciphertext_Create2(ciphertext.object, out))
        })
    }

    fn plaintext() -> Result<Self> {
        Self::new(sys::Plaintext_Destroy, |out| {
            seal!(Plaintext_Create1(null_mut(), out))
        })
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: the object was created and not destroyed before; `destroy` is
        // that of its type.
        unsafe { (self.destroy)(self.object) };
    }
}

/// SEAL under one chain.
pub struct Seal {
    log_qp: f64,
    scale: f64,
    levels: usize,
    slots: usize,
    parms_id: [u64; 4],
    values: [Vec<f64>; 2],
    encoder: Owned,
    encryptor: Owned,
    decryptor: Owned,
    evaluator: Owned,
    relin: Owned,
    galois: Owned,
    plain: Owned,
    /// Two ciphertexts, a product in three parts, and one in the coefficient
    /// domain.
    fresh: [Owned; 2],
    product: Owned,
    coefficients: Owned,
    _keys: [Owned; 3],
    /// The last one to go.
    _context: Owned,
}

impl Seal {
    /// Makes keys and operands.
    pub fn new(chain: &Chain) -> Result<Self> {
        let n = chain.params.n();
        let mut bits = chain.bits.to_vec();
        let mut moduli = vec![null_mut(); bits.len()];
        let count = bits.len() as u64;
        seal!(CoeffModulus_Create1(
            n as u64,
            count,
            bits.as_mut_ptr(),
            moduli.as_mut_ptr()
        ))?;
        let moduli: Vec<Owned> = moduli
            .into_iter()
            .map(|object| Owned {
                object,
                destroy: sys::Modulus_Destroy,
            })
            .collect();
        let mut log_qp = 0.0;
        for modulus in &moduli {
            let mut value = 0;
            seal!(Modulus_Value(modulus.object, &raw mut value))?;
            log_qp += (value as f64).log2();
        }
        let params = Owned::new(sys::EncParams_Destroy, |out| {
            seal!(EncParams_Create1(CKKS, out))
        })?;
        let mut objects: Vec<Object> = moduli.iter().map(|modulus| modulus.object).collect();
        seal!(EncParams_SetPolyModulusDegree(params.object, n as u64))?;
        seal!(EncParams_SetCoeffModulus(
            params.object,
            count,
            objects.as_mut_ptr()
        ))?;
        let context = Owned::new(sys::SEALContext_Destroy, |out| {
            seal!(SEALContext_Create(params.object, true, TC128, out))
        })?;
        let mut valid = false;
        seal!(SEALContext_ParametersSet(context.object, &raw mut valid))?;
        ensure!(valid, "SEAL refuses the primes of {} bits", log_qp);
        let mut parms_id = [0; 4];
        seal!(SEALContext_FirstParmsId(
            context.object,
            parms_id.as_mut_ptr()
        ))?;

        let generator = Owned::new(sys::KeyGenerator_Destroy, |out| {
            seal!(KeyGenerator_Create1(context.object, out))
        })?;
        let secret = Owned::new(sys::SecretKey_Destroy, |out| {
            seal!(KeyGenerator_SecretKey(generator.object, out))
        })?;
        let public = Owned::new(sys::PublicKey_Destroy, |out| {
            seal!(KeyGenerator_CreatePublicKey(generator.object, false, out))
        })?;
        let relin = Owned::new(sys::KSwitchKeys_Destroy, |out| {
            seal!(KeyGenerator_CreateRelinKeys(generator.object, false, out))
        })?;
        let slots = chain.params.slots();
        let mut steps: Vec<c_int> = (0..slots.ilog2()).map(|bit| 1 << bit).collect();
        let galois = Owned::new(sys::KSwitchKeys_Destroy, |out| {
            seal!(KeyGenerator_CreateGaloisKeysFromSteps(
                generator.object,
                steps.len() as u64,
                steps.as_mut_ptr(),
                false,
                out
            ))
        })?;
        let encoder = Owned::new(sys::CKKSEncoder_Destroy, |out| {
            seal!(CKKSEncoder_Create(context.object, out))
        })?;
        let encryptor = Owned::new(sys::Encryptor_Destroy, |out| {
            seal!(Encryptor_Create(
                context.object,
                public.object,
                secret.object,
                out
            ))
        })?;
        let decryptor = Owned::new(sys::Decryptor_Destroy, |out| {
            seal!(Decryptor_Create(context.object, secret.object, out))
        })?;
        let evaluator = Owned::new(sys::Evaluator_Destroy, |out| {
            seal!(Evaluator_Create(context.object, out))
        })?;
        let mut seal = Self {
            log_qp,
            scale: chain.scale,
            levels: chain.drops.len(),
            slots,
            parms_id,
            values: [chain.values(1), chain.values(2)],
            encoder,
            encryptor,
            decryptor,
            evaluator,
            relin,
            galois,
            plain: Owned::plaintext()?,
            fresh: [Owned::ciphertext()?, Owned::ciphertext()?],
            product: Owned::ciphertext()?,
            coefficients: Owned::ciphertext()?,
            _keys: [generator, secret, public],
            _context: context,
        };
        for i in [0, 1] {
            seal.plain = seal.encode(i)?;
            seal.fresh[i] = Owned::ciphertext()?;
            seal.encrypt_secret(&seal.plain, false, &seal.fresh[i])?;
        }
        seal.product = Owned::copy_of(&seal.fresh[0])?;
        seal.multiply(&seal.product, &seal.fresh[1])?;
        seal.coefficients = Owned::copy_of(&seal.fresh[0])?;
        seal.to_coefficients(&seal.coefficients)?;
        Ok(seal)
    }

    fn encode_into(&self, i: usize, plain: &Owned) -> Result<()> {
        // SEAL reads the values and the identifier.
        seal!(CKKSEncoder_Encode1(
            self.encoder.object,
            self.slots as u64,
            self.values[i].as_ptr().cast_mut(),
            self.parms_id.as_ptr().cast_mut(),
            self.scale,
            plain.object,
            null_mut()
        ))
    }

    fn encode(&self, i: usize) -> Result<Owned> {
        let plain = Owned::plaintext()?;
        self.encode_into(i, &plain)?;
        Ok(plain)
    }

    fn encrypt_secret(&self, plain: &Owned, seeded: bool, ct: &Owned) -> Result<()> {
        seal!(Encryptor_EncryptSymmetric(
            self.encryptor.object,
            plain.object,
            seeded,
            ct.object,
            null_mut()
        ))
    }

    fn encrypt_public(&self, plain: &Owned, ct: &Owned) -> Result<()> {
        seal!(Encryptor_Encrypt(
            self.encryptor.object,
            plain.object,
            ct.object,
            null_mut()
        ))
    }

    fn decrypt_decode(&self, ct: &Owned, plain: &Owned, values: &mut [f64]) -> Result<()> {
        ensure!(values.len() == self.slots);
        let mut count = 0;
        seal!(Decryptor_Decrypt(
            self.decryptor.object,
            ct.object,
            plain.object
        ))?;
        seal!(CKKSEncoder_Decode1(
            self.encoder.object,
            plain.object,
            &raw mut count,
            values.as_mut_ptr(),
            null_mut()
        ))
    }

    fn add(&self, ct: &Owned, other: &Owned) -> Result<()> {
        seal!(Evaluator_Add(
            self.evaluator.object,
            ct.object,
            other.object,
            ct.object
        ))
    }

    fn multiply_plain(&self, ct: &Owned, plain: &Owned) -> Result<()> {
        seal!(Evaluator_MultiplyPlain(
            self.evaluator.object,
            ct.object,
            plain.object,
            ct.object,
            null_mut()
        ))
    }

    fn multiply(&self, ct: &Owned, other: &Owned) -> Result<()> {
        seal!(Evaluator_Multiply(
            self.evaluator.object,
            ct.object,
            other.object,
            ct.object,
            null_mut()
        ))
    }

    fn square(&self, ct: &Owned) -> Result<()> {
        seal!(Evaluator_Square(
            self.evaluator.object,
            ct.object,
            ct.object,
            null_mut()
        ))
    }

    fn relinearize(&self, ct: &Owned) -> Result<()> {
        seal!(Evaluator_Relinearize(
            self.evaluator.object,
            ct.object,
            self.relin.object,
            ct.object,
            null_mut()
        ))
    }

    fn rescale(&self, ct: &Owned) -> Result<()> {
        seal!(Evaluator_RescaleToNext(
            self.evaluator.object,
            ct.object,
            ct.object,
            null_mut()
        ))
    }

    fn rotate(&self, ct: &Owned, steps: c_int) -> Result<()> {
        seal!(Evaluator_RotateVector(
            self.evaluator.object,
            ct.object,
            steps,
            self.galois.object,
            ct.object,
            null_mut()
        ))
    }

    fn to_ntt(&self, ct: &Owned) -> Result<()> {
        seal!(Evaluator_TransformToNTT2(
            self.evaluator.object,
            ct.object,
            ct.object
        ))
    }

    fn to_coefficients(&self, ct: &Owned) -> Result<()> {
        seal!(Evaluator_TransformFromNTT(
            self.evaluator.object,
            ct.object,
            ct.object
        ))
    }
}

impl Peer for Seal {
    fn name(&self) -> &str {
        "SEAL 4.0"
    }

    fn log_qp(&self) -> f64 {
        self.log_qp
    }

    fn time(&mut self, operation: Operation, runs: usize) -> Result<Option<Vec<Duration>>> {
        let fresh = || Owned::copy_of(&self.fresh[0]);
        let times = match operation {
            Operation::NttForward => measure(
                runs,
                || Owned::copy_of(&self.coefficients),
                |ct| self.to_ntt(ct),
            ),
            Operation::NttInverse => measure(runs, fresh, |ct| self.to_coefficients(ct)),
            Operation::Encode => {
                measure(runs, || self.encode(1), |plain| self.encode_into(0, plain))
            }
            Operation::EncryptSecret => {
                measure(runs, fresh, |ct| self.encrypt_secret(&self.plain, true, ct))
            }
            Operation::EncryptPublic => {
                measure(runs, fresh, |ct| self.encrypt_public(&self.plain, ct))
            }
            Operation::DecryptDecode => measure(
                runs,
                || Ok((self.encode(0)?, vec![1.0; self.slots])),
                |(plain, values)| self.decrypt_decode(&self.fresh[0], plain, values),
            ),
            Operation::Add => measure(runs, fresh, |ct| self.add(ct, &self.fresh[1])),
            Operation::MultiplyPlain => {
                measure(runs, fresh, |ct| self.multiply_plain(ct, &self.plain))
            }
            Operation::Multiply => measure(runs, fresh, |ct| self.multiply(ct, &self.fresh[1])),
            Operation::Square => measure(runs, fresh, |ct| self.square(ct)),
            Operation::Relinearize => measure(
                runs,
                || Owned::copy_of(&self.product),
                |ct| self.relinearize(ct),
            ),
            Operation::Rescale => measure(runs, fresh, |ct| self.rescale(ct)),
            Operation::Rotate => measure(runs, fresh, |ct| self.rotate(ct, 1)),
            Operation::EncodeEncryptSecret => measure(
                runs,
                || Ok((self.encode(1)?, fresh()?)),
                |(plain, ct)| {
                    self.encode_into(0, plain)?;
                    self.encrypt_secret(plain, true, ct)
                },
            ),
            Operation::EncodeEncryptPublic => measure(
                runs,
                || Ok((self.encode(1)?, fresh()?)),
                |(plain, ct)| {
                    self.encode_into(0, plain)?;
                    self.encrypt_public(plain, ct)
                },
            ),
            Operation::EncodeMultiplyPlainRescale => measure(
                runs,
                || Ok((self.encode(1)?, fresh()?)),
                |(plain, ct)| {
                    self.encode_into(0, plain)?;
                    self.multiply_plain(ct, plain)?;
                    self.rescale(ct)
                },
            ),
            Operation::MultiplyRelinearizeRescale => measure(runs, fresh, |ct| {
                self.multiply(ct, &self.fresh[1])?;
                self.relinearize(ct)?;
                self.rescale(ct)
            }),
            Operation::SquareRelinearizeRescale => measure(runs, fresh, |ct| {
                self.square(ct)?;
                self.relinearize(ct)?;
                self.rescale(ct)
            }),
            Operation::InnerSum => measure(
                runs,
                || Ok((fresh()?, fresh()?)),
                |(ct, turned)| {
                    for bit in 0..self.slots.ilog2() {
                        seal!(Evaluator_RotateVector(
                            self.evaluator.object,
                            ct.object,
                            1 << bit,
                            self.galois.object,
                            turned.object,
                            null_mut()
                        ))?;
                        self.add(ct, turned)?;
                    }
                    Ok(())
                },
            ),
        };
        times.map(Some)
    }

    fn circuit(&mut self) -> Result<Vec<f64>> {
        let [ct, other] = [Owned::ciphertext()?, Owned::ciphertext()?];
        for (i, ct) in [&ct, &other].into_iter().enumerate() {
            self.encrypt_secret(&self.encode(i)?, false, ct)?;
        }
        for level in 0..self.levels {
            if level == 0 {
                self.multiply(&ct, &other)?;
            } else {
                self.square(&ct)?;
            }
            self.relinearize(&ct)?;
            self.rescale(&ct)?;
        }
        let mut values = vec![0.0; self.slots];
        self.decrypt_decode(&ct, &Owned::plaintext()?, &mut values)?;
        Ok(values)
    }
}
