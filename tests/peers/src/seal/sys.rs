//! SEAL's C interface (`native/src/seal/c` of SEAL 4.0), as far as it is used.
//! `sealy` builds and links it; its own methods have no rotation of slots and
//! copy where this works in place.

use std::ffi::{c_int, c_long, c_void};

/// An object of SEAL's.
pub type Object = *mut c_void;

// The library is linked by way of this crate.
use sealy as _;

unsafe extern "C" {
    pub fn EncParams_Create1(scheme: u8, out: *mut Object) -> c_long;
    pub fn EncParams_Destroy(this: Object) -> c_long;
    pub fn EncParams_SetPolyModulusDegree(this: Object, degree: u64) -> c_long;
    pub fn EncParams_SetCoeffModulus(this: Object, length: u64, moduli: *mut Object) -> c_long;
    pub fn CoeffModulus_Create1(n: u64, length: u64, bits: *mut c_int, out: *mut Object) -> c_long;
    pub fn Modulus_Value(this: Object, out: *mut u64) -> c_long;
    pub fn Modulus_Destroy(this: Object) -> c_long;

    pub fn SEALContext_Create(
        params: Object,
        chain: bool,
        security: c_int,
        out: *mut Object,
    ) -> c_long;
    pub fn SEALContext_Destroy(this: Object) -> c_long;
    pub fn SEALContext_ParametersSet(this: Object, out: *mut bool) -> c_long;
    pub fn SEALContext_FirstParmsId(this: Object, out: *mut u64) -> c_long;

    pub fn KeyGenerator_Create1(context: Object, out: *mut Object) -> c_long;
    pub fn KeyGenerator_Destroy(this: Object) -> c_long;
    pub fn KeyGenerator_SecretKey(this: Object, out: *mut Object) -> c_long;
    pub fn KeyGenerator_CreatePublicKey(this: Object, save_seed: bool, out: *mut Object) -> c_long;
    pub fn KeyGenerator_CreateRelinKeys(this: Object, save_seed: bool, out: *mut Object) -> c_long;
    pub fn KeyGenerator_CreateGaloisKeysFromSteps(
        this: Object,
        count: u64,
        steps: *mut c_int,
        save_seed: bool,
        out: *mut Object,
    ) -> c_long;
    pub fn SecretKey_Destroy(this: Object) -> c_long;
    pub fn PublicKey_Destroy(this: Object) -> c_long;
    pub fn KSwitchKeys_Destroy(this: Object) -> c_long;

    pub fn CKKSEncoder_Create(context: Object, out: *mut Object) -> c_long;
    pub fn CKKSEncoder_Destroy(this: Object) -> c_long;
    pub fn CKKSEncoder_Encode1(
        this: Object,
        count: u64,
        values: *mut f64,
        parms_id: *mut u64,
        scale: f64,
        out: Object,
        pool: Object,
    ) -> c_long;
    pub fn CKKSEncoder_Decode1(
        this: Object,
        plain: Object,
        count: *mut u64,
        values: *mut f64,
        pool: Object,
    ) -> c_long;

    pub fn Encryptor_Create(
        context: Object,
        public: Object,
        secret: Object,
        out: *mut Object,
    ) -> c_long;
    pub fn Encryptor_Destroy(this: Object) -> c_long;
    pub fn Encryptor_Encrypt(this: Object, plain: Object, out: Object, pool: Object) -> c_long;
    pub fn Encryptor_EncryptSymmetric(
        this: Object,
        plain: Object,
        save_seed: bool,
        out: Object,
        pool: Object,
    ) -> c_long;
    pub fn Decryptor_Create(context: Object, secret: Object, out: *mut Object) -> c_long;
    pub fn Decryptor_Destroy(this: Object) -> c_long;
    pub fn Decryptor_Decrypt(this: Object, ct: Object, out: Object) -> c_long;

    pub fn Plaintext_Create1(pool: Object, out: *mut Object) -> c_long;
    pub fn Plaintext_Destroy(this: Object) -> c_long;
    pub fn Ciphertext_Create1(pool: Object, out: *mut Object) -> c_long;
    pub fn Ciphertext_Create2(copy: Object, out: *mut Object) -> c_long;
    pub fn Ciphertext_Destroy(this: Object) -> c_long;

    pub fn Evaluator_Create(context: Object, out: *mut Object) -> c_long;
    pub fn Evaluator_Destroy(this: Object) -> c_long;
    pub fn Evaluator_Add(this: Object, a: Object, b: Object, out: Object) -> c_long;
    pub fn Evaluator_MultiplyPlain(
        this: Object,
        a: Object,
        b: Object,
        out: Object,
        pool: Object,
    ) -> c_long;
    pub fn Evaluator_Multiply(
        this: Object,
        a: Object,
        b: Object,
        out: Object,
        pool: Object,
    ) -> c_long;
    pub fn Evaluator_Square(this: Object, a: Object, out: Object, pool: Object) -> c_long;
    pub fn Evaluator_Relinearize(
        this: Object,
        a: Object,
        keys: Object,
        out: Object,
        pool: Object,
    ) -> c_long;
    pub fn Evaluator_RescaleToNext(this: Object, a: Object, out: Object, pool: Object) -> c_long;
    pub fn Evaluator_RotateVector(
        this: Object,
        a: Object,
        steps: c_int,
        keys: Object,
        out: Object,
        pool: Object,
    ) -> c_long;
    pub fn Evaluator_TransformToNTT2(this: Object, a: Object, out: Object) -> c_long;
    pub fn Evaluator_TransformFromNTT(this: Object, a: Object, out: Object) -> c_long;
}
